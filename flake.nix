{
  description = "Container images from Nix closures: no layer stored, only missing layers sent";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      eachSystem = f: lib.genAttrs systems (system: f self.legacyPackages.${system});
    in
    {
      # pkgs.stowage: the program, and with it the functions of nix/lib.nix.
      overlays.default = final: _prev: {
        stowage =
          let program = final.callPackage ./nix/package.nix { };
          in program // import ./nix/lib.nix { pkgs = final; stowage = final.buildPackages.callPackage ./nix/package.nix { }; };
      };

      # nixpkgs with the overlay.
      legacyPackages = lib.genAttrs systems
        (system: nixpkgs.legacyPackages.${system}.extend self.overlays.default);

      packages = eachSystem (pkgs: {
        default = pkgs.stowage;
        inherit (pkgs) stowage;
        # By the name that flakes with nix2container as an input have for it.
        nix2container = pkgs.stowage;
        dockerImage = pkgs.callPackage ./nix/docker-image.nix { };
      });

      checks = eachSystem (pkgs:
        let
          packages = self.packages.${pkgs.stdenv.hostPlatform.system};
          examples = import ./tests/e2e/nix2container.nix { inherit pkgs; inherit (packages) nix2container; };
        in
        import ./tests/e2e/images.nix { inherit pkgs; }
        // lib.mapAttrs' (name: lib.nameValuePair "nix2container-${name}") examples
        // { inherit (packages) dockerImage stowage; });
    };
}
