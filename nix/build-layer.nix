{ lib, internalSpec, overridable, storePaths }:

/* Builds layers that several images can share: `buildImage { layers = [ … ]; }`.

   Type: buildLayer :: AttrSet -> Derivation

   Example:
   buildLayer { deps = [ pkgs.bash pkgs.coreutils ]; }
*/
lib.fix (self:
{
  # Derivations or store paths that are in the image's store, with everything that they refer to.
  deps ? [ ]
  # A derivation or a list of derivations whose files are copied to `/`.
, copyToRoot ? null
  # The largest number of layers, 1 to 127.
, maxLayers ? 1
  # The way to group store paths, as for buildImage.
, layering ? "runs"
  # True if building the store paths again gives the same layers. If false, the layers are kept in the store
  # as they were made.
, reproducible ? true
  # Modes and owners of files, as for buildImage.
, perms ? [ ]
  # Results of `buildLayer` that go below. Their store paths are left out of these layers, and an image with
  # these layers also has those below.
, layers ? [ ]
  # A store path that is left out, even if others refer to it.
, ignore ? null
  # The text of the layers' history: `created_by`, `author`, `comment`.
, metadata ? { }
  # The old name of copyToRoot.
, contents ? null
}@arguments: overridable "buildLayer" self arguments (
  let depsList = storePaths "buildLayer: `deps`" deps; in
  internalSpec {
    sbomRoots = depsList ++ storePaths "buildLayer: `copyToRoot`" [ copyToRoot contents ]
      ++ lib.concatMap (layer: layer.sbomRoots) (storePaths "buildLayer: `layers`" layers);
    function = "buildLayer";
    name = "layers";
    kind = "layer";
    roots = map (dep: "${dep}") depsList;
    inherit copyToRoot contents layers perms;
    options = {
      inherit maxLayers layering metadata reproducible;
      exclude = lib.optional (ignore != null) "${ignore}";
    };
  }
)
)
