{ lib, scriptPkgs, runCommandLocal, stowage, unpackLimits }:

# The result of buildImage and buildIndex: a script that streams the image, and programs that copy it.
{
  # The function whose arguments these are, for messages.
  function
, name
  # Null for the hash of the output's store path.
, tag
  # The beginning of the derivation's name.
, prefix
  # The image spec or index spec.
, spec
  # The command of stowage that the script runs, as a function of the reference. The reference has the shell
  # variable `tag`.
, stream
  # The program that runs this command.
, streamer ? stowage
  # Further attributes of the result, as a function of the reference and of `program` and `withSkopeo` below.
, passthru ? _: { }
  # Limits for unpacking layers, as in unpack-limits.nix.
, limits ? { }
, meta
}:
let
  imageName = lib.toLower name;
  baseName = baseNameOf imageName;
  imageTag =
    if tag != null then tag
    else builtins.substring 0 32 (baseNameOf (builtins.unsafeDiscardStringContext script.outPath));
  reference = "${imageName}:${imageTag}";

  # A value for a message, whatever its type.
  show = value: if lib.isString value then value else builtins.toJSON value;

  # The problem of the name, with its solution if there is a known one; null if the name is valid
  # (the grammar is that of github.com/distribution/reference).
  nameProblem =
    let
      components = lib.splitString "/" imageName;
      isRegistry = import ./is-registry.nix { inherit lib; };
      isRepository = import ./is-repository.nix { inherit lib; };
      withRegistry = lib.length components > 1 && isRepository (lib.tail components);
      withTag = builtins.match "(.*):([^/:]+)" name;
    in
    if !lib.isString name then ""
    else if builtins.match ".*://.*" name != null then ": leave out `${builtins.head (builtins.match "(.*://).*" name)}`"
    else if builtins.match ".*@.*" name != null then ": a digest can't be chosen, leave it out"
    else if isRepository components || withRegistry && isRegistry (lib.head components) then
      if builtins.stringLength imageName <= 255 then null else ", which is longer than 255 characters"
    else if withRegistry && builtins.match ".*[].:[].*" (lib.head components) != null then
      ": `${lib.head components}` is not a registry, which is a host name, an IPv4 address or an IPv6 address in `[]`, perhaps with a port from 1 to 65535"
    else if withTag != null then ": give the tag by itself, `tag = \"${builtins.elemAt withTag 1}\"`"
    else "";

  runBy = program: arguments: "${unpackLimits.exports limits}exec ${program}/bin/stowage ${arguments} \"$@\"";
  run = runBy stowage;
  # Programs for `nix run`.
  program = name: arguments: scriptPkgs.writeShellScriptBin name (run arguments);
  withSkopeo = name: arguments: scriptPkgs.writeShellScriptBin name ''
    # A skopeo for targets that need it, if PATH has none: one from PATH suits the machine better.
    PATH=''${PATH:+$PATH:}${scriptPkgs.skopeo}/bin
    ${run arguments}
  '';

  script = runCommandLocal "${prefix}-${baseName}"
    {
      inherit meta;
      passthru = {
        inherit imageName imageTag spec;
        imageRefUnsafe = builtins.unsafeDiscardStringContext reference;
        isExe = true;
        copyTo = withSkopeo "copy-to" "copy ${spec}";
        copyToRegistry = program "copy-to-registry" "copy ${spec} docker://${reference}";
      } // passthru { inherit reference program withSkopeo; };
    } ''
    output=''${out##*/}
    tag=${if tag != null then lib.escapeShellArg tag else "\${output%%-*}"}
    cat > $out <<EOF
    #!${scriptPkgs.runtimeShell}
    # spec: ${spec}
    ${lib.replaceStrings [ "$@" "\${" ] [ "\\$@" "\\\${" ] (runBy streamer (stream "${imageName}:$tag"))}
    EOF
    chmod +x $out
  '';
in
assert lib.assertMsg (nameProblem == null)
  "stowage.${function}: `name` must be an image name such as `hello` or `registry.example/team/hello`, not `${show name}`${nameProblem}";
assert lib.assertMsg (tag == null || lib.isString tag && builtins.match "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}" tag != null)
  "stowage.${function}: `tag` must be 1 to 128 letters, digits, `_`, `.` and `-`, not `${show tag}`";
script
