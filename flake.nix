{
  description = "Container images from Nix closures: no layer stored, only missing layers sent";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      eachSystem = f: lib.genAttrs systems (system: f self.legacyPackages.${system});
    in
    {
      # A container image of one's own: nix flake init -t
      templates.default = {
        path = ./template;
        description = "A container image with stowage, and Nix' own changed to taste";
      };

      # pkgs.stowage: the program, and with it the functions of nix/lib.nix.
      overlays.default = final: _prev: {
        stowage =
          let program = final.callPackage ./nix/package.nix { };
          in program // import ./nix/lib.nix { pkgs = final; stowage = final.buildPackages.callPackage ./nix/package.nix { }; };
      };

      # pkgs.dockerTools: ours in the place of nixpkgs' own.
      overlays.dockerTools = final: prev: self.overlays.default final prev // { inherit (final.stowage) dockerTools; };

      # nixpkgs with the overlay.
      legacyPackages = lib.genAttrs systems
        (system: nixpkgs.legacyPackages.${system}.extend self.overlays.default);

      packages = eachSystem (pkgs: {
        default = pkgs.stowage;
        inherit (pkgs) stowage;
        # `nix run .#serve -- --packages nixpkgs!nixos-unstable`
        serve = pkgs.stowage.serve;
        # By the name that flakes with nix2container as an input have for it.
        nix2container = pkgs.stowage;
        # Not by `callPackage`, which would look for `config` and the like in nixpkgs.
        dockerImage = lib.makeOverridable (import ./nix/docker-image.nix) { inherit lib pkgs; inherit (pkgs) stowage; };
      });

      checks = eachSystem (pkgs:
        let
          packages = self.packages.${pkgs.stdenv.hostPlatform.system};
          examples = import ./tests/e2e/nix2container.nix { inherit pkgs; inherit (packages) nix2container; };
        in
        import ./tests/e2e/images.nix { inherit pkgs; }
        // lib.mapAttrs' (name: lib.nameValuePair "nix2container-${name}") examples
        // lib.mapAttrs' (name: lib.nameValuePair "tools-${name}") pkgs.stowage.dockerTools.examples
        // lib.mapAttrs' (name: lib.nameValuePair "names-${name}") (import ./tests/e2e/names.nix { inherit pkgs; }).images
        // {
          inherit (packages) dockerImage stowage;
          # As a release would have it, made in a sandbox.
          nixTarball = pkgs.runCommand "nix-image-tarball" { nativeBuildInputs = [ pkgs.gzip ]; } ''
            mkdir $out
            ${lib.getExe packages.dockerImage.copyTo} docker-archive:$out/image.tar
            gzip --no-name $out/image.tar
          '';
        });
    };
}
