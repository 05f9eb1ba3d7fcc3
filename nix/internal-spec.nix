{ lib, builderDerivation, storePaths, unpackLimits }:

# The common part of buildImage and buildLayer.
{
  # The function whose arguments these are, for messages.
  function
, name
  # "image", "layer" or "nixDatabase"
, kind
  # Store paths, as strings. The result is made of their closure, in addition to copyToRoot.
, roots
, copyToRoot
, contents
, layers
, perms
, options
  # True if the derivation has a second output, `layers`, for compressed layers.
, keepsLayers ? false
  # The derivations that a layer is made of.
, sbomRoots ? [ ]
  # Store paths, as strings, that are copied to `/` in addition to copyToRoot.
, addToRoot ? [ ]
  # The base image, which may have limits for unpacking it.
, fromImage ? null
}:
let
  copied = lib.warnIf (contents != null) "stowage.${function}: `contents` is now called `copyToRoot`"
    (if contents != null then contents else copyToRoot);
  # `layers` may be nested lists, like `copyToRoot`.
  givenLayers = if lib.isList layers then storePaths "${function}: `layers`" layers else layers;
  givenPerms = if lib.isList perms then lib.flatten perms else perms;
  copyRoots = map (root: "${root}") (storePaths "${function}: `copyToRoot`" copied);
  isOfStore = rule: !lib.isString rule.path || dirOf rule.path == builtins.storeDir;

  drv = builderDerivation {
    inherit name;
    closure = roots ++ copyRoots ++ addToRoot;
    limits = unpackLimits.of fromImage;
    attributes = {
      ${kind} = options // {
        copyToRoot = copyRoots ++ addToRoot;
        layers = map (layer: "${layer}") givenLayers;
        perms = map (rule: rule // { path = "${rule.path}"; }) givenPerms;
      };
    } // lib.optionalAttrs keepsLayers { outputs = [ "out" "layers" ]; };
  };
in
assert lib.assertMsg (contents == null || copyToRoot == null)
  "stowage.${function}: `contents` is the old name of `copyToRoot`: give one of them";
assert lib.assertMsg (lib.isList layers && lib.all (layer: layer.isStowageLayer or false) givenLayers)
  "stowage.${function}: `layers` must be a list of what `buildLayer` makes";
assert lib.assertMsg (lib.isList perms && lib.all (rule: rule ? path) givenPerms)
  "stowage.${function}: `perms` must be a list of rules such as `{ path = …; regex = \"/tmp$\"; mode = \"1777\"; }`, each with the `path` that it is for";
assert lib.assertMsg (lib.all isOfStore givenPerms)
  "stowage.${function}: `perms` has the path `${(lib.findFirst (rule: !isOfStore rule) null givenPerms).path}`, which is not a whole store path: give the derivation or the path that has the files, and a `regex` that finds them, such as `\"/tmp$\"`";
drv // lib.optionalAttrs (kind == "layer") { isStowageLayer = true; inherit sbomRoots; }
