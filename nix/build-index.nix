{ lib, writeText, annotationsOf, script, overridable }:

/* Makes an index of images for several platforms, from which engines choose the one for their platform.

   The result is a script that streams the index and its images as an OCI archive.

   Type: buildIndex :: AttrSet -> Derivation

   Attributes of the result, besides those of a derivation:
   - imageName, imageTag, imageRefUnsafe: as for buildImage
   - copyTo, copyToRegistry: programs that copy the index with all of its images
   - spec: the index spec

   Example:
   buildIndex {
       name = "registry.example/team/hello";
       tag = "v1";
       images = [ helloForAmd64 { image = helloForArm64; annotations.tested = "no"; } ];
       annotations."org.opencontainers.image.source" = "https://example.org/hello";
   }
*/
lib.fix (self:
{
  # Name of the index, with a registry and a namespace if it has them. It is put in lower case, since
  # registries only accept that.
  name
  # Tag of the index; null for the hash of the output's store path.
, tag ? null
  # Results of `buildImage`, each for another platform; or sets of `image` and `annotations`.
, images
  # The annotations of the index itself.
, annotations ? { }
  # The `meta` attributes of the derivation.
, meta ? { }
}@arguments: overridable "buildIndex" self arguments (
  let
    baseName = baseNameOf (lib.toLower name);
    complain = problem: throw "stowage.buildIndex: ${problem}";

    entries = map
      (entry: if entry ? image then entry else { image = entry; })
      (if lib.isList images && images != [ ] then images else complain "`images` must be a list of one image at least");
    checked = annotations: annotationsOf { function = "buildIndex"; inherit annotations; };
    specOf = { image, annotations ? { } }: {
      spec = "${image.spec or (complain "each of `images` must be an image of `buildImage`")}";
      annotations = checked annotations;
    };
    spec = writeText "${baseName}-index.json" (builtins.toJSON {
      version = 1;
      annotations = checked annotations;
      images = map specOf entries;
    });

  in
  script {
    function = "buildIndex";
    prefix = "index";
    inherit name tag spec meta;
    stream = reference: "copy --quiet ${spec} oci-archive:/dev/stdout:${reference}";
  }
)
)
