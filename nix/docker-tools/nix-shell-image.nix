{ lib, bashInteractive, cacert, coreutils, writeShellScriptBin, writeText, binSh, fakeNss, usrBinEnv, streamLayeredImage, tarball }:

let
  streamNixShellImage = lib.makeOverridable (
    {
      # The derivation whose build environment it is.
      drv
    , name ? "${drv.name}-env"
    , tag ? null
      # Who works there.
    , uid ? 1000
    , gid ? 1000
    , homeDirectory ? "/build"
    , shell ? "${bashInteractive}/bin/bash"
      # Commands in place of an interactive shell: `nix-shell --command`, which stays if it ends in
      # `return`, and `nix-shell --run`.
    , command ? null
    , run ? null
    }:
    let
      # As in Nix's sandbox.
      buildDirectory = "/build";

      asString = value:
        if lib.isBool value then lib.optionalString value "1"
        else if lib.isList value then lib.concatMapStringsSep " " asString value
        else if builtins.isPath value then "${value}" # which copies it to the store
        else toString value;
      passedAsFile = drv.drvAttrs.passAsFile or [ ];
      inFile = name: value: lib.nameValuePair "${name}Path"
        "${writeText "pass-as-text-${name}" (asString value)}";
      attributes = lib.concatMapAttrs
        (name: value: lib.listToAttrs [
          (if lib.elem name passedAsFile then inFile name value else lib.nameValuePair name (asString value))
        ])
        (removeAttrs drv.drvAttrs [ "args" ]);
      outputs = lib.listToAttrs (map
        (output: lib.nameValuePair output (builtins.unsafeDiscardStringContext drv.${output}.outPath))
        (drv.outputs or [ "out" ]));

      environment = {
        SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt";
        NIX_SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt";
        # stdenv's setup makes it.
        PATH = "/path-not-set";
        HOME = homeDirectory;
        NIX_STORE = builtins.storeDir;
        NIX_BUILD_CORES = "1";
      } // attributes // outputs // {
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

      # What nix-shell has its shell read.
      rcfile = writeText "nix-shell-rc" ''
        unset PATH
        dontAddDisableDepTrack=1
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
        ${lib.optionalString (command != null) command}
        ${lib.optionalString (run != null) run}
        ${lib.optionalString (command != null || run != null) "exit"}
      '';
    in
    assert lib.assertMsg (!(drv.drvAttrs.__structuredAttrs or false))
      "stowage.dockerTools.streamNixShellImage: ${drv.name} has structured attributes, which are no environment";
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
        # Who works there may write to these; and a Nix there needs no daemon.
        own() { mkdir -p "$@" && chown ${toString uid}:${toString gid} "$@"; }
        own .${buildDirectory} ./nix ./nix/store ./nix/var ./nix/var/nix ./etc/nix
        ${lib.optionalString (homeDirectory != "/homeless-shelter") "own .${lib.escapeShellArg homeDirectory}"}
      '';
      config = {
        User = "${toString uid}:${toString gid}";
        Cmd =
          if command != null || run != null then [ shell rcfile ]
          else [ shell "--rcfile" rcfile ];
        WorkingDir = buildDirectory;
        Env = lib.mapAttrsToList (name: value: "${name}=${value}") environment;
      };
    }
  );
in
{
  /* A script that streams an image with the environment that a derivation is built in, as `nix-shell` has it.

     Type: streamNixShellImage :: AttrSet -> Derivation
  */
  inherit streamNixShellImage;

  /* The same as a file; `compressor` is "none", "gz" or "zstd".

     Type: buildNixShellImage :: AttrSet -> Derivation
  */
  buildNixShellImage = { compressor ? "gz", ... }@arguments:
    let stream = streamNixShellImage (removeAttrs arguments [ "compressor" ]);
    in tarball { inherit stream compressor; name = baseNameOf stream.imageName; };
}
