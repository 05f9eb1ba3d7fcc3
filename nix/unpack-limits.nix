{ lib }:

# The limits for unpacking a base image, which are attributes of the image: `maxUnpacked` and `maxRatio`.
let
  variables = { maxUnpacked = "STOWAGE_MAX_UNPACKED"; maxRatio = "STOWAGE_MAX_RATIO"; };
  forms = {
    maxUnpacked = { pattern = "[0-9]+[KMGT]?"; text = "a number of bytes such as \"256G\""; };
    maxRatio = { pattern = "[0-9]+"; text = "a whole number"; };
  };
  checked = name: value:
    if builtins.match forms.${name}.pattern (toString value) != null then toString value
    else throw "stowage: `${name}` must be ${forms.${name}.text}, not `${toString value}`";
in
rec {
  # Limits as strings, without those that are null.
  of = image: lib.mapAttrs checked (lib.filterAttrs (_: value: value != null) {
    maxUnpacked = image.maxUnpacked or null;
    maxRatio = image.maxRatio or null;
  });

  # A base image with limits that are given beside it. The image is a derivation, or a path of an archive.
  limited = { fromImage, maxUnpacked, maxRatio }:
    let given = of { inherit maxUnpacked maxRatio; };
    in
    if fromImage == null || given == { } then fromImage
    else (if lib.isAttrs fromImage then fromImage else { outPath = "${fromImage}"; }) // given;

  # Variables of the environment that give the limits to the program.
  environment = image: lib.mapAttrs' (name: value: lib.nameValuePair variables.${name} (toString value)) (of image);

  # Commands for a shell that set the variables, unless the user has set them.
  exports = image: lib.concatStrings (lib.mapAttrsToList (name: value: "export ${name}=\"\${${name}-${value}}\"\n") (environment image));
}
