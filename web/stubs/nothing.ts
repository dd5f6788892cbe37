// In place of modules that only register what is never used here.
export {};
