{ stdenv, builder }:

# A derivation whose builder is stowage itself. It reads the attributes in the build directory, and needs no
# shell and no jq, so that a rebuild waits for no other package.
{ name
  # Store paths, as strings, whose closure the builder reads.
, closure
  # The largest size and ratio of what a base image unpacks to, if they are not the default.
, limits ? { }
  # The kind of result, "image", "layer", "nixDatabase" or "popularity", with its options.
, attributes
}:
derivation ({
  inherit name;
  system = stdenv.buildPlatform.system;
  builder = "${builder}/bin/stowage";
  args = [ "builder" ];
  __structuredAttrs = true;
  # Copying the closure to a remote builder costs more than reading it here.
  preferLocalBuild = true;
  allowSubstitutes = false;
  exportReferencesGraph = { inherit closure; };
} // (if limits == { } then { } else { unpackLimits = limits; }) // attributes)
