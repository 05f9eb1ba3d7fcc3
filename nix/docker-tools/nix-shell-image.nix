{ lib, bashInteractive, cacert, coreutils, writeScript, writeShellScriptBin, writeText, binSh, fakeNss, usrBinEnv, overridable, streamLayeredImage, tarball }:

let
  # An image name that is like another name: `gtk+-3.0-env` becomes `gtk-3.0-env`.
  imageNameOf = name:
    let isRepository = import ../is-repository.nix { inherit lib; }; in
    if isRepository [ (lib.toLower name) ] then name
    else lib.concatStringsSep "-" (lib.filter (part: lib.isString part && part != "") (builtins.split "[.]?[^a-z0-9.]+[.]?|[.][.]+" (lib.toLower name)));

  streamNixShellImage =
    {
      # The derivation whose build environment the image has.
      drv
      # The names of derivations have more characters than those of images.
    , name ? imageNameOf "${drv.name}-env"
    , tag ? null
      # The user of the environment.
    , uid ? 1000
    , gid ? 1000
    , homeDirectory ? "/build"
    , shell ? "${bashInteractive}/bin/bash"
      # Commands in place of an interactive shell: `nix-shell --command`, which stays if it ends in
      # `return`, and `nix-shell --run`.
    , command ? null
    , run ? null
    }@arguments: overridable "dockerTools.streamNixShellImage" streamNixShellImage arguments (
      let
        # The build directory of Nix's sandbox.
        buildDirectory = "/build";

        structured = drv.drvAttrs.__structuredAttrs or false;
        outputs = lib.listToAttrs (map
          (output: lib.nameValuePair output (builtins.unsafeDiscardStringContext drv.${output}.outPath))
          (drv.outputs or [ "out" ]));

        # Without structured attributes, each attribute is a variable (Nix manual, "Derivations").
        asString = value:
          if lib.isBool value then lib.optionalString value "1"
          else if lib.isList value then lib.concatMapStringsSep " " asString value
          else if builtins.isPath value then "${value}" # which copies it to the store
          else toString value;
        passedAsFile = drv.drvAttrs.passAsFile or [ ];
        inFile = name: value: lib.nameValuePair "${name}Path"
          "${writeText "pass-as-text-${name}" (asString value)}";
        variables = lib.concatMapAttrs
          (name: value: lib.listToAttrs [
            (if lib.elem name passedAsFile then inFile name value else lib.nameValuePair name (asString value))
          ])
          (removeAttrs drv.drvAttrs [ "args" ]) // outputs;

        # With structured attributes, the attributes are in two files that variables name ("Structured
        # attributes").
        attributesJSON = builtins.toJSON
          (removeAttrs drv.drvAttrs [ "args" "__structuredAttrs" "__ignoreNulls" ] // { inherit outputs; });
        # The attributes as Nix writes them in Bash: those with valid names in Bash, and without nested
        # values.
        attributesBash =
          let
            isName = name: builtins.match "[A-Za-z_][A-Za-z0-9_]*" name != null;
            simple = value:
              if value == null then "''"
              else if lib.isBool value then lib.optionalString value "1"
              else if lib.isInt value then toString value
              else if lib.isString value then lib.escapeShellArg value
              else null;
            ofAll = values: f: if lib.any (value: simple value == null) values then null else f;
            declaration = name: value:
              if simple value != null then "declare ${name}=${simple value}"
              else if lib.isList value then ofAll value "declare -a ${name}=(${lib.concatMapStringsSep " " simple value} )"
              else if lib.isAttrs value then
                ofAll (lib.attrValues value)
                  "declare -A ${name}=(${lib.concatStrings (lib.mapAttrsToList (key: value: "[${lib.escapeShellArg key}]=${simple value} ") value)})"
              else null;
            declarations = lib.mapAttrsToList
              (name: value: lib.optional (isName name) (declaration name value))
              (builtins.fromJSON (builtins.unsafeDiscardStringContext attributesJSON));
          in
          # The store paths that the text names are those of the JSON.
          builtins.appendContext
            (lib.concatMapStrings (line: line + "\n") (lib.filter (line: line != null) (lib.concatLists declarations)))
            (builtins.getContext attributesJSON);
        files = {
          NIX_ATTRS_JSON_FILE = "${writeText ".attrs.json" attributesJSON}";
          NIX_ATTRS_SH_FILE = "${writeText ".attrs.sh" attributesBash}";
        };

        environment = {
          SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt";
          NIX_SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt";
          # For programs that are run without the shell. The shell's own setup sets another PATH.
          PATH = searchPath;
          HOME = homeDirectory;
          NIX_STORE = builtins.storeDir;
          NIX_BUILD_CORES = "1";
        } // (if structured then files else variables) // {
          NIX_BUILD_TOP = buildDirectory;
          TMPDIR = buildDirectory;
          TEMPDIR = buildDirectory;
          TMP = buildDirectory;
          TEMP = buildDirectory;
          PWD = homeDirectory;
          TERM = "xterm-256color";
        };

        buildDerivation = writeShellScriptBin "buildDerivation"
          "exec ${lib.escapeShellArgs (map asString ([ drv.drvAttrs.builder ] ++ drv.drvAttrs.args or [ ]))}";

        # The programs that `docker run IMAGE PROGRAM` finds without a shell: those of the environment.
        inputs = lib.filter (input: input != null) (lib.flatten (map
          (name: drv.drvAttrs.${name} or [ ])
          [ "depsBuildBuild" "nativeBuildInputs" "depsBuildTarget" "depsHostHost" "buildInputs" "depsBuildBuildPropagated" "propagatedNativeBuildInputs" "propagatedBuildInputs" ]));
        ofInputs = lib.unique (map (input: "${input}/bin") (lib.filter lib.isDerivation inputs));
        searchPath = lib.concatStringsSep ":"
          (ofInputs ++ [ (dirOf shell) "${buildDerivation}/bin" "${coreutils}/bin" ]);

        # The file that nix-shell's shell reads at its start.
        environmentText = ''
          unset PATH
          dontAddDisableDepTrack=1
          if [ -e "$NIX_ATTRS_SH_FILE" ]; then source "$NIX_ATTRS_SH_FILE"; fi
          [ -e $stdenv/setup ] && source $stdenv/setup
          PATH=${dirOf shell}:${buildDerivation}/bin:${coreutils}/bin''${PATH:+:$PATH}
          SHELL=${lib.escapeShellArg shell}
          BASH=${lib.escapeShellArg shell}
          set +e
          [ -n "$PS1" -a -z "$NIX_SHELL_PRESERVE_PROMPT" ] && PS1='\n\[\033[1;32m\][nix-shell:\w]\$\[\033[0m\] '
          if [ "$(type -t runHook)" = function ]; then
            runHook shellHook
          elif [ -n "$shellHook" ]; then
            eval "$shellHook"
          fi
          unset NIX_ENFORCE_PURITY
          shopt -u nullglob
          shopt -s execfail
        '';
        rcfile = writeText "nix-shell-rc" ''
          ${environmentText}
          ${lib.optionalString (command != null) command}
          ${lib.optionalString (run != null) run}
          ${lib.optionalString (command != null || run != null) "exit"}
        '';
        # `docker run IMAGE PROGRAM` runs a program in the same environment. The image's own command already
        # has the environment, unless the shell reads commands from a file or a pipe: then it reads no other file.
        enter = writeScript "nix-shell-enter" ''
          #!${shell}
          case "''${2-}" in
          --rcfile) if [ -t 0 ]; then exec "$@"; fi ;;
          ${rcfile}) exec "$@" ;;
          esac
          program=("$@")
          ${environmentText}
          export PATH
          exec "''${program[@]}"
          exit
        '';
      in
      assert lib.assertMsg (command == null || run == null)
        "stowage.dockerTools.streamNixShellImage: give one of `command` and `run`";
      streamLayeredImage {
        inherit name tag uid gid;
        contents = [
          buildDerivation
          binSh
          usrBinEnv
          (fakeNss.override {
            extraPasswdLines = [ "nixbld:x:${toString uid}:${toString gid}:Build user:${homeDirectory}:/noshell" ];
            extraGroupLines = [ "nixbld:!:${toString gid}:" ];
          })
        ];
        fakeRootCommands = ''
          # The user of the container may write to these directories, so that a Nix in the container needs no daemon.
          own() { mkdir -p "$@" && chown ${toString uid}:${toString gid} "$@"; }
          own .${buildDirectory} ./nix ./nix/store ./nix/var ./nix/var/nix ./etc/nix
          ${lib.optionalString (homeDirectory != "/homeless-shelter") "own .${lib.escapeShellArg homeDirectory}"}
        '';
        config = {
          User = "${toString uid}:${toString gid}";
          Entrypoint = [ enter ];
          Cmd =
            if command != null || run != null then [ shell rcfile ]
            else [ shell "--rcfile" rcfile ];
          WorkingDir = buildDirectory;
          Env = lib.mapAttrsToList (name: value: "${name}=${value}") environment;
        };
      }
    );
in
rec {
  /* A script that streams an image with the environment that a derivation is built in, as `nix-shell` has it.

     Type: streamNixShellImage :: AttrSet -> Derivation
  */
  inherit streamNixShellImage;

  /* The same as a file; `compressor` is "none", "gz" or "zstd".

     Type: buildNixShellImage :: AttrSet -> Derivation
  */
  buildNixShellImage =
    # deadnix: skip
    { compressor ? "gz", drv, name ? "", tag ? null, uid ? 1000, gid ? 1000, homeDirectory ? "/build", shell ? "", command ? null, run ? null }@arguments:
    let
      # Uses the defaults of streamNixShellImage.
      stream = streamNixShellImage (removeAttrs arguments [ "compressor" ]);
    in
    overridable "dockerTools.buildNixShellImage" buildNixShellImage arguments
      (tarball { inherit stream compressor; name = baseNameOf stream.imageName; });
}
