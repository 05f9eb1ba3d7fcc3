{ stdenv, builder }:

# A derivation whose builder is stowage itself. It finds the attributes in the build directory: no
# shell, no jq, and so nothing that a rebuild would have to wait for.
{ name
  # Store paths, as strings, whose closure is read.
, closure
  # What is to be done: "image", "layer", "nixDatabase" or "popularity", and how.
, attributes
}:
derivation ({
  inherit name;
  system = stdenv.buildPlatform.system;
  builder = "${builder}/bin/stowage";
  args = [ "builder" ];
  __structuredAttrs = true;
  # To copy the closure to a remote builder costs more than to read it.
  preferLocalBuild = true;
  allowSubstitutes = false;
  exportReferencesGraph = { inherit closure; };
} // attributes)
