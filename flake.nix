{
  description = "Container images from Nix closures: no layer stored, only missing layers sent";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      linux = [ "x86_64-linux" "aarch64-linux" ];
      # The program is compiled for macOS, but was never run there: docs/macos.md.
      darwin = [ "x86_64-darwin" "aarch64-darwin" ];
      eachOf = systems: f: lib.genAttrs systems (system: f self.legacyPackages.${system});
    in
    {
      # A flake with a container image of your own: nix flake init -t
      templates = {
        default = {
          path = ./template;
          description = "A container image with stowage, and Nix' own changed to taste";
        };
      } // lib.mapAttrs
        (name: _: { path = ./examples + "/${name}"; inherit (import (./examples + "/${name}/flake.nix")) description; })
        (lib.filterAttrs (_: type: type == "directory") (builtins.readDir ./examples));

      # pkgs.stowage: the program, with the functions of nix/lib.nix.
      overlays.default = final: _prev:
        let
          program = onlyBuilder: packages: packages.callPackage ./nix/package.nix { inherit onlyBuilder; };
          functions = import ./nix/lib.nix {
            pkgs = final;
            stowage = program false final.buildPackages;
            builder = program true final.buildPackages;
          };
        in
        { stowage = program false final // functions; };

      # pkgs.dockerTools: stowage's functions in place of nixpkgs' own.
      overlays.dockerTools = final: prev: self.overlays.default final prev // { inherit (final.stowage) dockerTools; };

      # services.stowage: a registry on NixOS.
      nixosModules.default = { imports = [ ./nix/modules/nixos.nix ]; };

      # perSystem.stowage.images: images in a flake by flake-parts.
      flakeModules.default = { imports = [ ./nix/modules/flake-parts.nix ]; };

      # nixpkgs with the overlay.
      legacyPackages = lib.genAttrs (linux ++ darwin)
        (system: nixpkgs.legacyPackages.${system}.extend self.overlays.default);

      packages = eachOf (linux ++ darwin) (pkgs: {
        default = pkgs.stowage;
        inherit (pkgs) stowage;
        # `nix run .#serve -- --packages 'nixpkgs!nixos-unstable'`
        inherit (pkgs.stowage) serve;
        # The names that flakes with nix2container as an input use.
        nix2container = pkgs.stowage;
        nix2container-bin = pkgs.stowage;
        skopeo-nix2container = pkgs.stowage.skopeo;
        # As in a release: one file that needs no library of Nix, for any distribution. macOS has no static
        # programs: there the program needs macOS' own libraries alone.
        static = if pkgs ? pkgsStatic then pkgs.pkgsStatic.callPackage ./nix/package.nix { } else pkgs.stowage;
      } // lib.optionalAttrs (pkgs ? mdbook) {
        manual = pkgs.runCommand "stowage-manual" { nativeBuildInputs = [ pkgs.mdbook ]; } ''
          cp -r ${./docs} docs
          cp ${./book.toml} book.toml
          mdbook build --dest-dir $out
        '';
      } // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
        # The program alone.
        programImage = pkgs.stowage.buildImage {
          name = "stowage";
          tag = "v${pkgs.stowage.version}";
          config.Entrypoint = [ "${pkgs.stowage}/bin/stowage" ];
        };
        # `callPackage` would look for `config` and other arguments in nixpkgs.
        dockerImage = lib.makeOverridable (import ./nix/docker-image.nix) { inherit lib pkgs; inherit (pkgs) stowage; };
      });

      checks = eachOf linux (pkgs:
        let
          packages = self.packages.${pkgs.stdenv.hostPlatform.system};
          examples = import ./tests/e2e/nix2container.nix { inherit pkgs; inherit (packages) nix2container; };
        in
        import ./tests/e2e/images.nix { inherit pkgs; }
        // lib.mapAttrs' (name: lib.nameValuePair "nix2container-${name}") examples
        // lib.mapAttrs' (name: lib.nameValuePair "tools-${name}") pkgs.stowage.dockerTools.examples
        // lib.mapAttrs' (name: lib.nameValuePair "example-${name}") (import ./tests/e2e/examples.nix { inherit pkgs; })
        // lib.mapAttrs' (name: lib.nameValuePair "accounts-${name}") (import ./tests/e2e/accounts.nix { inherit pkgs; })
        // lib.mapAttrs' (name: lib.nameValuePair "names-${name}") (import ./tests/e2e/names.nix { inherit pkgs; }).images
        // {
          inherit (packages) dockerImage skopeo-nix2container;
          nixOfUser = packages.dockerImage.override {
            config.Env = [ "EDITOR=vi" "MANPATH=/usr/share/man" ];
            name = "nix-of-user";
            tag = "v1";
            uid = 1000;
            foreignPrograms = true;
            maxLayers = 12;
            copyToRoot = pkgs.writeTextDir "etc/motd" "welcome";
          };
          stowage = packages.stowage.override { withTests = true; };
          inherit (import ./tests/e2e/modules.nix { inherit pkgs; }) units flakeParts;
          # The program as in a release, built in a sandbox.
          nixTarball = pkgs.runCommand "nix-image-tarball" { nativeBuildInputs = [ pkgs.gzip ]; } ''
            mkdir $out
            ${lib.getExe packages.dockerImage.copyTo} docker-archive:$out/image.tar
            gzip --no-name $out/image.tar
          '';
        });
    };
}
