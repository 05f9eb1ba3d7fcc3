# nixpkgs' trivial builders.
{ lib, pkgs }:
let
  inherit (pkgs) runCommand runCommandLocal;
in
rec {
  writeTextFile = { name, text, executable ? false, destination ? "", checkPhase ? "", meta ? { }, passthru ? { }, ... }:
    runCommandLocal name { inherit text executable destination meta passthru; passAsFile = [ "text" ]; } ''
      target=$out$destination
      mkdir -p "$(dirname "$target")"
      cp "$textPath" "$target"
      if [ -n "$executable" ]; then chmod +x "$target"; fi
      ${checkPhase}
    '';
  writeText = name: text: writeTextFile { inherit name text; };
  writeTextDir = path: text: writeTextFile { inherit text; name = baseNameOf path; destination = "/${path}"; };
  writeScript = name: text: writeTextFile { inherit name text; executable = true; };
  writeScriptBin = name: text: writeTextFile {
    inherit name text;
    executable = true;
    destination = "/bin/${name}";
    meta.mainProgram = name;
  };
  script = text: "#!${pkgs.runtimeShell}\n${text}\n";
  writeShellScript = name: text: writeScript name (script text);
  writeShellScriptBin = name: text: writeScriptBin name (script text);
  writeShellApplication = { name, text, runtimeInputs ? [ ], runtimeEnv ? { }, meta ? { }, passthru ? { }, ... }: writeTextFile {
    inherit name passthru;
    executable = true;
    destination = "/bin/${name}";
    meta = { mainProgram = name; } // meta;
    text = script ''
      set -o errexit
      set -o nounset
      set -o pipefail
      ${lib.concatStrings (lib.mapAttrsToList (key: value: "export ${key}=${lib.escapeShellArg value}\n") runtimeEnv)}
      ${lib.optionalString (runtimeInputs != [ ]) "export PATH=\"${lib.makeBinPath runtimeInputs}:$PATH\""}
      ${text}
    '';
    checkPhase = ''bash -n "$target"'';
  };

  # Links to every file of several trees, in a tree of real directories: `postBuild` may
  # replace any of them. The first of two paths with the same file wins.
  symlinkJoin = { name, paths, postBuild ? "", ... }@arguments:
    runCommandLocal name
      (removeAttrs arguments [ "name" "postBuild" ] // {
        inherit paths;
        passAsFile = [ "paths" ] ++ arguments.passAsFile or [ ];
        passthru = { inherit paths; } // arguments.passthru or { };
      }) ''
      mkdir $out
      for path in $(cat $pathsPath); do
        cp --recursive --symbolic-link --no-clobber --no-preserve=mode $path/. $out
        chmod -R u+w $out
      done
      ${postBuild}
    '';

  buildEnv =
    { name
    , paths
    , pathsToLink ? [ "/" ]
    , extraPrefix ? ""
    , ignoreCollisions ? false
    , postBuild ? ""
    , meta ? { }
    , passthru ? { }
    , nativeBuildInputs ? [ ]
    , ...
    }:
    runCommand name
      {
        inherit nativeBuildInputs;
        paths = map toString (lib.flatten paths);
        inherit pathsToLink ignoreCollisions meta;
        passthru = { inherit paths; } // passthru;
        prefix = extraPrefix;
      } ''
      target=$out$prefix
      mkdir -p "$target"
      # link SOURCE TARGET: as nixpkgs does, a directory that only one of the paths has is a
      # link; one that several have is a directory of links.
      link() {
        local entry
        if [ ! -e "$2" ] && [ ! -L "$2" ]; then ln -s "$1" "$2"; return; fi
        if [ "$(readlink -f "$1")" = "$(readlink -f "$2")" ]; then return; fi
        if [ -d "$1" ] && [ -d "$2" ]; then
          if [ -L "$2" ]; then
            local other; other=$(readlink -f "$2")
            rm "$2"; mkdir "$2"
            for entry in "$other"/* "$other"/.[!.]*; do
              if [ -e "$entry" ] || [ -L "$entry" ]; then link "$entry" "$2/''${entry##*/}"; fi
            done
          fi
          for entry in "$1"/* "$1"/.[!.]*; do
            if [ -e "$entry" ] || [ -L "$entry" ]; then link "$entry" "$2/''${entry##*/}"; fi
          done
        elif [ -n "$ignoreCollisions" ] || cmp -s "$1" "$2"; then
          :
        else
          echo "error: collision between $1 and $(readlink "$2")" >&2
          exit 1
        fi
      }
      for path in $paths; do
        for sub in $pathsToLink; do
          sub=''${sub%/}
          if [ -z "$sub" ]; then
            for entry in "$path"/*; do
              [ "''${entry##*/}" = nix-support ] || [ ! -e "$entry" ] || link "$entry" "$target/''${entry##*/}"
            done
          elif [ -e "$path$sub" ]; then
            mkdir -p "$target$(dirname "$sub")"
            link "$path$sub" "$target$sub"
          fi
        done
      done
      ${postBuild}
    '';

  linkFarm = name: entries:
    let
      list = if lib.isAttrs entries then lib.mapAttrsToList (name: path: { inherit name path; }) entries else entries;
    in
    runCommandLocal name { } ''
      mkdir -p $out
      cd $out
      ${lib.concatMapStrings ({ name, path }: ''
        mkdir -p "$(dirname ${lib.escapeShellArg name})"
        ln -s ${lib.escapeShellArg "${path}"} ${lib.escapeShellArg name}
      '') list}
    '';

  # What nixpkgs' closureInfo writes, read out of Nix's JSON by the shell's own means.
  closureInfo = { rootPaths }: runCommand "closure-info"
    {
      __structuredAttrs = true;
      exportReferencesGraph.closure = lib.toList rootPaths;
      nativeBuildInputs = [ pkgs.buildPackages.jq ];
    } ''
    mkdir $out
    jq -r '.closure[].path' "$NIX_ATTRS_JSON_FILE" > $out/store-paths
    jq -r '[.closure[].narSize] | add // 0' "$NIX_ATTRS_JSON_FILE" > $out/total-nar-size
    jq -r '.closure[] | .path, .narHash, .narSize, "", (.references | length), .references[]' \
      "$NIX_ATTRS_JSON_FILE" > $out/registration
  '';

  makeWrapper = runCommand "make-wrapper-hook" { } ''
    mkdir -p $out/nix-support
    cp ${./make-wrapper.sh} $out/nix-support/setup-hook
  '';
  makeBinaryWrapper = makeWrapper;

  mkShell = { packages ? [ ], nativeBuildInputs ? [ ], ... }@arguments: pkgs.stdenv.mkDerivation (
    { name = "shell"; } // removeAttrs arguments [ "packages" ] // {
      nativeBuildInputs = packages ++ nativeBuildInputs;
      buildCommand = "mkdir $out";
    }
  );
  mkShellNoCC = mkShell;

  emptyDirectory = runCommandLocal "empty-directory" { } "mkdir $out";
  emptyFile = writeText "empty-file" "";
}
