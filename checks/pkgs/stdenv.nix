# runCommand and stdenv.mkDerivation, as far as packages of scripts and Debian's need them.
# `bash` runs every build, with the programs of `initialPath`.
{ lib, system, bash, initialPath }:
let
  # Of other systems than Debian's packages are for, the set can only be evaluated.
  platform = lib.systems.elaborate system;

  # Attributes that describe a package and are not its builder's business.
  described = [ "meta" "passthru" "pos" ];

  # A derivation with nixpkgs' extras. `arguments` may be a function of the final ones.
  make = arguments:
    let
      final = lib.toFunction arguments final;
      name = lib.sanitizeDerivationName (final.name or "${final.pname}-${final.version}");
      structured = final.__structuredAttrs or false;
      inputs = lib.concatMap (key: final.${key} or [ ]) [ "nativeBuildInputs" "buildInputs" ];
      drv = derivation (
        { inherit system; builder = "${bash}/bin/bash"; args = [ "-e" ./setup.sh ]; }
        # Variables of the builder's environment may be in a set of their own.
        // lib.optionalAttrs (!structured) (final.env or { })
        // removeAttrs final (described ++ lib.optional (!structured) "env")
        // {
          inherit name;
          initialPath = lib.makeBinPath initialPath;
          buildInputPaths = map toString (lib.filter (input: input != null) inputs);
        }
        // lib.optionalAttrs (final ? buildCommand && !structured) {
          passAsFile = [ "buildCommand" ] ++ final.passAsFile or [ ];
        }
      );
      passthru = final.passthru or { };
      # As nixpkgs' check-meta.nix, which reads licences before a derivation is made.
      isFree = licence: licence.free or true;
      allowed = lib.all isFree (lib.toList (final.meta.license or [ ]))
        || throw "Package ‘${name}’ has an unfree license, refusing to evaluate.";
    in
    drv // passthru // lib.optionalAttrs (final ? pname) { inherit (final) pname; }
    // lib.optionalAttrs (final ? version) { inherit (final) version; }
    // {
      inherit name passthru;
      drvPath = assert allowed; drv.drvPath;
      outPath = assert allowed; drv.outPath;
      meta = final.meta or { };
      # `change` is a set, a function of the previous attributes, or of the final and these.
      overrideAttrs = change: make (final':
        let
          previous = lib.toFunction arguments final';
          changed = lib.toFunction change previous;
        in
        previous // (if lib.isFunction changed then change final' previous else changed));
      overrideDerivation = change: derivation (drv.drvAttrs // change drv);
    };

  stdenv = {
    inherit system;
    hostPlatform = platform;
    buildPlatform = platform;
    targetPlatform = platform;
    shell = "${bash}/bin/bash";
    inherit initialPath;
    mkDerivation = make;
    cc = null;
  };

  runCommandWith = { name, derivationArgs ? { }, runLocal ? false, ... }: buildCommand:
    make ({ inherit name buildCommand; } // derivationArgs
      // lib.optionalAttrs runLocal { preferLocalBuild = true; allowSubstitutes = false; });
in
{
  inherit stdenv runCommandWith;
  stdenvNoCC = stdenv;
  runCommand = name: derivationArgs: runCommandWith { inherit name derivationArgs; };
  runCommandNoCC = name: derivationArgs: runCommandWith { inherit name derivationArgs; };
  runCommandCC = name: derivationArgs: runCommandWith { inherit name derivationArgs; };
  runCommandLocal = name: derivationArgs: runCommandWith { inherit name derivationArgs; runLocal = true; };
}
