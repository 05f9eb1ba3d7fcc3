{ lib }:

# Makes the annotations that name a pulled base image (image-spec, annotations.md). The name is complete:
# it contains a registry.
{
  # Name of the base in its registry.
  imageName
  # Its tag there, if it is known.
, tag
  # Digest of its manifest, if it is known.
, digest
}:
let
  parts = lib.splitString "/" imageName;
  first = lib.head parts;
  # Distinguishes a registry from a namespace as Docker does.
  hasRegistry = lib.length parts > 1 && (builtins.match ".*[.:].*" first != null || first == "localhost");
  registry = if !hasRegistry || lib.elem first [ "index.docker.io" "registry-1.docker.io" ] then "docker.io" else first;
  path = if hasRegistry then lib.tail parts else parts;
  fullPath = if registry == "docker.io" && lib.length path == 1 then [ "library" ] ++ path else path;
  name = lib.concatStringsSep "/" ([ registry ] ++ fullPath);
in
{
  "org.opencontainers.image.base.name" = if tag != null then "${name}:${tag}" else "${name}@${digest}";
} // lib.optionalAttrs (digest != null) { "org.opencontainers.image.base.digest" = digest; }
