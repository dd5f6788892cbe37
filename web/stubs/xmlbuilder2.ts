/** Stands for xmlbuilder2, which vtk.js imports for reading XML files; the workstation reads none. */
const unavailable = (): never => {
  throw new Error("XML files of vtk.js are not read here");
};

export const create = unavailable;
export const convert = unavailable;
