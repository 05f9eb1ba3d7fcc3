{ baseImage, internalSpec }:

# A store path with a Nix database, whose files are copied to an image's root. With this database, a Nix in the image
# finds the store paths of the image and of its base image valid. The files name these store paths, and so refer to them.
{
  # The function whose arguments these are, for messages.
  function
, name
  # As for internalSpec.
, roots
, copyToRoot
, contents ? null
, layers ? [ ]
  # Store paths, as strings, that are copied to `/` in addition to copyToRoot.
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
