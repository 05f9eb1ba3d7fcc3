{ lib, internalSpec, overridable, storePaths }:

/* Builds layers on their own, for images to share: `buildImage { layers = [ … ]; }`.

   Type: buildLayer :: AttrSet -> Derivation

   Example:
   buildLayer { deps = [ pkgs.bash pkgs.coreutils ]; }
*/
lib.fix (self:
{
  # Derivations or store paths that are in the image where they are in the store, with all they refer to.
  deps ? [ ]
  # A derivation or a list of them, whose files are copied to `/`.
, copyToRoot ? null
  # How many layers there may be, 1 to 127.
, maxLayers ? 1
  # How store paths are grouped, as for buildImage.
, layering ? "runs"
  # Whether the layers come out the same wherever their store paths are built. If not, they are
  # kept in the store as they were made here.
, reproducible ? true
  # Modes and owners of files, as for buildImage.
, perms ? [ ]
  # `buildLayer`s that go below: what they hold is left out of this one, and an image
  # that has this one has them too.
, layers ? [ ]
  # A store path that is left out, whatever refers to it.
, ignore ? null
  # What the history says of the layers: `created_by`, `author`, `comment`.
, metadata ? { }
  # The old name of copyToRoot.
, contents ? null
}@arguments: overridable self arguments (
  internalSpec {
    sbomRoots = storePaths [ deps copyToRoot contents ] ++ lib.concatMap (layer: layer.sbomRoots) layers;
    function = "buildLayer";
    name = "layers";
    kind = "layer";
    roots = map (dep: "${dep}") (storePaths deps);
    inherit copyToRoot contents layers perms;
    options = {
      inherit maxLayers layering metadata reproducible;
      exclude = lib.optional (ignore != null) "${ignore}";
    };
  }
)
)
