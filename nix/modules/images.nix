# Options for images by name, and the packages, programs and checks that are made of them. Each result is the
# option of the same name in flake-parts' `perSystem`; flake-parts.nix copies them there.
{ config, lib, pkgs, ... }:
let
  inherit (lib) literalExpression mkOption types;
  cfg = config.stowage;

  # A list, to which each module adds, or any other value, which one module gives.
  argument = types.either (types.listOf types.raw) types.raw;
  # Declares an option to which each module adds attributes.
  attributes = description: mkOption { type = types.lazyAttrsOf types.anything; default = { }; inherit description; };

  image = types.submodule ({ name, ... }: {
    # Any other argument of `buildImage`, which reports unknown ones.
    freeformType = types.lazyAttrsOf argument;
    options = {
      name = mkOption {
        type = types.str;
        default = name;
        defaultText = literalExpression "the attribute's name";
        example = "registry.example/team/hello";
        description = "Name of the image, with a registry and a namespace if it has them.";
      };
      tag = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "Tag of the image; null for the hash of the output's store path.";
      };
      config = mkOption {
        type = types.submodule {
          freeformType = types.lazyAttrsOf types.anything;
          options.Env = mkOption {
            type = types.nullOr (types.listOf types.str);
            default = null;
            example = [ "LANG=C.UTF-8" ];
            description = "Environment variables, as `NAME=value`: those of all modules. null leaves `Env` out.";
          };
        };
        default = { };
        # Without definitions, the configuration has no `Env`.
        apply = lib.filterAttrs (key: value: key != "Env" || value != null);
        example = literalExpression ''{ Cmd = [ "''${pkgs.hello}/bin/hello" ]; }'';
        description = "The configuration of the container (`config` of the OCI image spec). Every store path in it is in the image. Modules may set different keys, and two commands for one key are an error: `lib.mkForce` chooses.";
      };
      accounts = attributes "Users and groups, as for `buildImage`.";
      annotations = attributes "Annotations of the image's manifest, as for `buildImage`.";
      directories = attributes "Directories by path, as for `buildImage`.";
      files = attributes "Files by path, as for `buildImage`.";
      links = attributes "The targets of links by path, as for `buildImage`.";
      checks.lint = mkOption {
        type = types.bool;
        default = true;
        description = "Whether `stowage lint --strict` is a check of the flake: it fails if there is a likely mistake.";
      };
      checks.structure = mkOption {
        type = types.listOf types.raw;
        default = [ ];
        example = literalExpression ''[ ./tests.yaml { fileExistenceTests = [ { name = "app"; path = "/bin/app"; } ]; } ]'';
        description = "Tests of the image's files and configuration in the format of container-structure-test, which are a check of the flake: files and attribute sets, as for `structureTest`.";
      };
      checks.verify = mkOption {
        type = types.bool;
        default = false;
        description = "Whether it is a check of the flake that makes every layer again, and compares it with the recorded one.";
      };
    };
  });

  build = _: image: cfg.library.buildImage (removeAttrs image [ "checks" ]);
  built = lib.mapAttrs build cfg.images;

  # Returns one set of the results for all images, with names that contain the image's name.
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
      description = "The functions of stowage, for the packages of the images.";
    };
    images = mkOption {
      type = types.lazyAttrsOf (types.nullOr image);
      default = { };
      apply = lib.filterAttrs (_: image: image != null);
      example = literalExpression ''{ hello = { tag = "v1"; config.Cmd = [ "''${pkgs.hello}/bin/hello" ]; }; }'';
      description = ''
        Images by the names that their packages have in the flake, with the arguments of `buildImage`.
        Several modules may describe an image: lists and attribute sets are merged. `lib.mkForce null` removes the image of another module.
        `nix run .#NAME-copyTo`, `-copyToDockerDaemon`, `-copyToPodman`, `-copyToRegistry` and `-explain` run the programs of an image.
      '';
    };
  };

  config = {
    packages = built;
    apps = forEach programs;
    checks = forEach checks;
  };
}
