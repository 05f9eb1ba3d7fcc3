{ lib, checkedArguments }:

# Checks a function's arguments, and gives its result `override`, as lib.makeOverridable does, but leaves the function
# one that builtins.functionArgs knows the arguments of.
name:
let
  overridable = function: arguments: result: result // {
    override = new: function (arguments // lib.toFunction new arguments);
  } // lib.optionalAttrs (result ? overrideAttrs) {
    overrideAttrs = change:
      let again = arguments': (function arguments').overrideAttrs change;
      in overridable again arguments (result.overrideAttrs change);
  };
in
function: arguments: result: checkedArguments name arguments (overridable function arguments result)
