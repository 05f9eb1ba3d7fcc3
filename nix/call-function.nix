# Calls a file's function with arguments, and with what else it takes of a set by name.
available: file: arguments:
let function = import file;
in function (builtins.intersectAttrs (builtins.functionArgs function) available // arguments)
