{ lib }:

# Turns `copyToRoot`, `contents`, `deps` or `packages` into a list. The value is a single item, a list, or
# nested lists, as from `lib.optional`; null items are left out. Each item is checked when it is used, so that the
# image's name can be evaluated without the packages.
#
# option: the function and its argument, for messages, such as "buildImage: `copyToRoot`".
option: given:
let
  show = value: if lib.isFunction value then "a function" else if lib.isAttrs value then "a set without `outPath`" else "`${builtins.toJSON value}`";
  # A string that names a place outside of the store.
  isOutside = item: lib.isString item && !builtins.hasContext item && !lib.hasPrefix "${builtins.storeDir}/" item;
  checked = item:
    if isOutside item then
      throw "stowage.${option} has the string `${item}`, which is no path in the Nix store: give a derivation, or a path without quotes"
    else if builtins.isPath item || lib.isStringLike item then item
    else throw "stowage.${option} must be derivations or paths, not ${show item}";
in
map checked (lib.filter (item: item != null) (lib.flatten given))
