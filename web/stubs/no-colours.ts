// In place of the colour tables of vtk.js: heat maps come coloured from the service.
export default [];
