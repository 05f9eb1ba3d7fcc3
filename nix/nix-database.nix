{ baseImage, internalSpec }:

# A store path whose files are copied to an image's root, for a Nix in it to find the image's store
# paths valid, and those of the base image. Its files name the paths that are registered, and so refer to them.
{
  # Whose arguments these are, for messages.
  function
, name
  # As for internalSpec.
, roots
, copyToRoot
, contents ? null
, layers ? [ ]
  # Store paths, as strings, that are copied to `/` besides.
, addToRoot ? [ ]
, exclude
, fromImage ? null
, architecture
}:
internalSpec {
  inherit function roots copyToRoot contents layers addToRoot fromImage;
  name = "${name}-nix-database";
  kind = "nixDatabase";
  perms = [ ];
  options = { inherit exclude architecture; fromImage = baseImage fromImage; };
}
