{ lib }:

# Gives a result `override`, as lib.makeOverridable does, but leaves the function one that
# builtins.functionArgs knows the arguments of.
let
  overridable = function: arguments: result: result // {
    override = new: function (arguments // lib.toFunction new arguments);
  } // lib.optionalAttrs (result ? overrideAttrs) {
    overrideAttrs = change:
      let again = arguments': (function arguments').overrideAttrs change;
      in overridable again arguments (result.overrideAttrs change);
  };
in
overridable
