{ lib, writeText, annotationsOf, script, overridable }:

/* Makes one index of images for several platforms, of which engines choose their own.

   The result is a script that streams it as an OCI archive.

   Type: buildIndex :: AttrSet -> Derivation

   Attributes of the result, besides those of a derivation:
   - imageName, imageTag, imageRefUnsafe: as for buildImage
   - copyTo, copyToRegistry: programs that copy it, all its images with it
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
  # Name of the index, perhaps with a registry and a namespace. Put in lower case, as registries want it.
  name
  # Tag of the index; null for the hash of the output's store path.
, tag ? null
  # What `buildImage` made, for a platform each; or sets of `image` and `annotations`.
, images
  # What the index says of itself.
, annotations ? { }
, meta ? { }
}@arguments: overridable self arguments (
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
