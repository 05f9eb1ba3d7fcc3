# Options for images by name, and the packages, programs and checks that come of them. Each is the
# option of the same name in flake-parts' `perSystem`; flake-parts.nix brings them there.
{ config, lib, pkgs, ... }:
let
  inherit (lib) literalExpression mkOption types;
  cfg = config.stowage;

  image = types.submodule ({ name, ... }: {
    # Any other argument of `buildImage`, which knows what there is.
    freeformType = types.lazyAttrsOf types.raw;
    options = {
      name = mkOption {
        type = types.str;
        default = name;
        defaultText = literalExpression "the attribute's name";
        example = "registry.example/team/hello";
        description = "Name of the image, perhaps with a registry and a namespace.";
      };
      tag = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "Tag of the image; null for the hash of the output's store path.";
      };
      config = mkOption {
        type = types.lazyAttrsOf types.anything;
        default = { };
        example = literalExpression ''{ Cmd = [ "''${pkgs.hello}/bin/hello" ]; }'';
        description = "How the container runs (`config` of the OCI image spec). Everything it mentions is in the image.";
      };
      checks.lint = mkOption {
        type = types.bool;
        default = true;
        description = "Whether `stowage lint --strict` is a check of the flake: it fails if anything is most likely wrong.";
      };
      checks.structure = mkOption {
        type = types.listOf types.raw;
        default = [ ];
        example = literalExpression ''[ ./tests.yaml { fileExistenceTests = [ { name = "app"; path = "/bin/app"; } ]; } ]'';
        description = "Tests of the image's files and configuration in the format of container-structure-test, which are a check of the flake: files and sets, as `structureTest` takes them.";
      };
      checks.verify = mkOption {
        type = types.bool;
        default = false;
        description = "Whether it is a check that every layer, made again, is what was built.";
      };
    };
  });

  build = _: image: cfg.library.buildImage (removeAttrs image [ "checks" ]);
  built = lib.mapAttrs build cfg.images;

  # A table of sets by image as one set, whose names say which image.
  forEach = f: lib.listToAttrs (lib.concatLists (lib.mapAttrsToList
    (name: image: lib.mapAttrsToList (kind: lib.nameValuePair "${name}-${kind}") (f name image))
    built));

  programs = _: image: lib.genAttrs
    (lib.filter (attribute: image ? ${attribute}) [ "copyTo" "copyToDockerDaemon" "copyToPodman" "copyToRegistry" "explain" ])
    (attribute: { type = "app"; program = lib.getExe image.${attribute}; });

  check = command: options: image: pkgs.runCommand "${command}-${baseNameOf image.imageName}" { } ''
    ${cfg.library.program}/bin/stowage ${command} ${options} ${image.spec} > $out || { cat $out >&2; exit 1; }
  '';
  checks = name: image:
    lib.optionalAttrs cfg.images.${name}.checks.lint { lint = check "lint" "--strict" image; }
    // lib.optionalAttrs (cfg.images.${name}.checks.structure != [ ]) {
      structure = cfg.library.structureTest { inherit image; tests = cfg.images.${name}.checks.structure; };
    }
    // lib.optionalAttrs cfg.images.${name}.checks.verify { verify = check "verify" "" image; };
in
{
  options.stowage = {
    library = mkOption {
      type = types.raw;
      default = import ../lib.nix { inherit pkgs; };
      defaultText = literalExpression "import \"\${inputs.stowage}/nix/lib.nix\" { inherit pkgs; }";
      description = "stowage's functions, for the packages that images are made of.";
    };
    images = mkOption {
      type = types.lazyAttrsOf image;
      default = { };
      example = literalExpression ''{ hello = { tag = "v1"; config.Cmd = [ "''${pkgs.hello}/bin/hello" ]; }; }'';
      description = ''
        Images by the names that their packages have in the flake, with the arguments of `buildImage`.
        `nix run .#NAME-copyTo`, `-copyToDockerDaemon`, `-copyToPodman`, `-copyToRegistry` and `-explain` are there for each.
      '';
    };
  };

  config = {
    packages = built;
    apps = forEach programs;
    checks = forEach checks;
  };
}
