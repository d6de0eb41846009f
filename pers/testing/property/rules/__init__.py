"""The rules of the property test, one module for each part of pers that they drive."""
