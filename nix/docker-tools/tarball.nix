{ lib, runCommand, builder }:

# The stream of a script of streamLayeredImage or buildImage, as a file.
{ stream, name, compressor, meta ? { } }:
let
  formats = {
    none = { extension = ""; format = "none"; };
    gz = { extension = ".gz"; format = "gzip"; };
    zstd = { extension = ".zst"; format = "zstd"; };
  };
  inherit (formats.${compressor}) extension format;
  archive = file: format: runCommand file
    {
      inherit meta;
      # The bytes are the same for any number of threads.
      enableParallelBuilding = true;
      passthru = {
        inherit stream;
        inherit (stream) imageName imageTag spec explain sbom copyTo copyToDockerDaemon copyToPodman copyToRegistry;
        # The archive that other images use as a base: its layers can be read without decompressing all bytes
        # before them.
        archive = archive "${name}.tar" "none";
      };
      # An attribute that nixpkgs' derivation also has.
      inherit (stream) imageName;
    } ''
    ${builder}/bin/stowage stream ${stream.spec} --compress ${format} \
      --repo-tag ${lib.escapeShellArg "${stream.imageName}:${stream.imageTag}"} > $out
  '';
in
assert lib.assertMsg (formats ? ${compressor})
  "stowage.dockerTools: `compressor` must be one of ${lib.concatStringsSep ", " (map (name: "`${name}`") (lib.attrNames formats))}, not `${compressor}`";
archive "${name}.tar${extension}" format
