# Calls the function in a file with `arguments`, and with further arguments that it takes by name from
# `available`.
available: file: arguments:
let function = import file;
in function (builtins.intersectAttrs (builtins.functionArgs function) available // arguments)
