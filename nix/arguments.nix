{ lib }:

# Checks the types of a function's arguments, so that a message names the argument and not a line of these files. What
# is inside of a list or a set is checked where it is used.
#
# function:  the function, for messages, such as "buildImage".
# arguments: the arguments that are given, without defaults.
# result:    what is returned.
function: arguments: result:
let
  inherit (lib) isAttrs isBool isFunction isInt isList isString;
  inherit (builtins) isPath;

  either = first: second: { is = value: first.is value || second.is value; text = "${first.text} or ${second.text}"; };
  orNull = type: { is = value: value == null || type.is value; text = "${type.text} or null"; };

  string = { is = isString; text = "a string"; };
  # Commands may be a file with them.
  commands = { is = value: isPath value || lib.isStringLike value; text = "a string"; };
  file = {
    is = value: isPath value || lib.isStringLike value && lib.hasPrefix "${builtins.storeDir}/" "${value}";
    text = "a file of the store: a path without quotes, or a derivation";
  };
  image = { is = value: value != "" && (isPath value || lib.isStringLike value); text = "an image: what `buildImage`, `dockerTools` or `pullImage` returns, or the path of an archive"; };
  boolean = { is = isBool; text = "true or false"; };
  list = { is = isList; text = "a list"; };
  set = { is = isAttrs; text = "a set"; };
  number = { is = isInt; text = "a whole number"; };
  id = { is = value: isInt value && value >= 0 && value < 4294967295; text = "a number from 0 to 4294967294"; };
  digits = { is = value: isString value && builtins.match "[0-9]+" value != null; text = "a string of digits"; };
  aFunction = { is = isFunction; text = "a function"; };
  pulled = {
    is = value: isString value && builtins.match "[A-Za-z0-9[]([][A-Za-z0-9._:/-]*[A-Za-z0-9])?" value != null
      && builtins.match ".*:.*" (baseNameOf value) == null;
    text = "the name of an image without a tag, such as `docker.io/library/alpine`";
  };
  # Nix takes "" for a hash that is to be found out.
  hash = {
    is = value: isString value && builtins.match "(sha256[:-])?([0-9a-f]{64}|[0-9a-z]{52}|[A-Za-z0-9+/]{43}=)?|sha512-[A-Za-z0-9+/]{86}==" value != null;
    text = "a hash in one of Nix's notations, such as `sha256-…=`";
  };
  fileName = { is = value: isString value && builtins.match "[A-Za-z0-9+_?=-][A-Za-z0-9+._?=-]{0,210}" value != null; text = "a file name for the Nix store"; };
  derivation = { is = value: value ? drvAttrs; text = "a derivation"; };

  types = {
    arch = string;
    architecture = string;
    attach = either list aFunction;
    command = orNull commands;
    compression = string;
    compressor = string;
    config = orNull set;
    created = string;
    directoryLinks = string;
    drv = derivation;
    enableFakechroot = boolean;
    extraCommands = commands;
    fakeRootCommands = commands;
    finalImageName = string;
    finalImageTag = string;
    # nix2container has "" for no base image.
    fromImage = either (orNull image) { is = value: value == ""; text = "`\"\"`"; };
    gid = id;
    gname = string;
    hash = orNull hash;
    homeDirectory = { is = value: isString value && builtins.match "/[^:\n]*" value != null; text = "an absolute path"; };
    ignore = orNull file;
    image = image;
    imageDigest = string;
    imageManifest = orNull file;
    imageName = pulled;
    imageTag = string;
    images = list;
    includeNixDB = boolean;
    includeStorePaths = boolean;
    initializeNixDatabase = boolean;
    keepCompressed = boolean;
    keepContentsDirlinks = boolean;
    layering = either string list;
    layeringHints = set;
    layeringPipeline = orNull (either list file);
    layers = list;
    maxLayers = number;
    maxRatio = orNull (either number string);
    maxUnpacked = orNull (either number string);
    meta = set;
    metadata = set;
    mtime = string;
    name = string;
    nixGid = orNull id;
    nixUid = orNull id;
    os = string;
    outputHash = orNull hash;
    outputHashAlgo = orNull { is = value: lib.elem value [ "md5" "sha1" "sha256" "sha512" ]; text = "an algorithm such as `sha256`"; };
    passthru = set;
    perms = list;
    popularity = orNull file;
    previousImage = orNull file;
    previousPlan = orNull file;
    registryUrl = string;
    reproducible = boolean;
    run = orNull commands;
    runAsRoot = orNull commands;
    sha256 = orNull hash;
    shell = commands;
    skipCommands = boolean;
    system = orNull { is = value: isString value && builtins.match "[a-z0-9_]+-[a-z0-9]+" value != null; text = "the name of a system, such as `x86_64-linux`"; };
    tag = orNull string;
    tlsVerify = boolean;
    uid = id;
    uname = string;
  } // ofFunction.${function} or { };
  ofFunction = {
    pullImage.hash = hash;
    pullImage.sha256 = hash;
    pullImage.name = { is = value: isString value && value != ""; text = "a name"; };
    popularity.name = fileName;
    structureTest.architecture = orNull string;
    # nixpkgs takes either.
    "dockerTools.buildImage".uid = either id digits;
    "dockerTools.buildImage".gid = either id digits;
    "dockerTools.exportImage".fromImage = image;
    buildImageFromNames.pkgs = orNull { is = value: value ? stdenv; text = "a package set such as nixpkgs"; };
    "dockerTools.exportImage".name = fileName;
    "dockerTools.pullImage".name = fileName;
  };

  show = value:
    if isFunction value then "a function"
    else if lib.isDerivation value then "a derivation"
    else if isAttrs value then "a set"
    else if isList value then "a list"
    else if isPath value then "the path ${toString value}"
    else "`${builtins.toJSON value}`";
  # Numbers and names of other types are easily turned into strings.
  hint = type: value:
    if type.is "" && (isInt value || lib.isFloat value) then ": write `\"${builtins.toJSON value}\"`"
    else if type.is "" && isPath value then ": put it into quotes, or use `baseNameOf`"
    else "";
  check = name: value:
    let type = types.${name}; in
    lib.assertMsg (!(types ? ${name}) || type.is value)
      "stowage.${function}: `${name}` must be ${type.text}, not ${show value}${hint type value}";
in
assert lib.all (name: check name arguments.${name}) (lib.attrNames arguments);
result
