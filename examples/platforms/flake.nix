{
  description = "One image for two platforms";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.stowage.url = "git+file:///where/you/cloned/stowage";
  inputs.stowage.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { stowage, ... }:
    let
      pkgs = stowage.legacyPackages.x86_64-linux;

      imageFor = pkgs: pkgs.stowage.buildImage {
        name = "hello";
        config.Cmd = [ "${pkgs.hello}/bin/hello" ];
      };
    in
    {
      # nix run .#default.copyToRegistry
      packages.x86_64-linux.default = pkgs.stowage.buildIndex {
        name = "localhost:5000/hello";
        tag = "v1";
        # Cross-compiled on this machine. Or by a builder of that platform: stowage.legacyPackages.aarch64-linux
        images = [ (imageFor pkgs) (imageFor pkgs.pkgsCross.aarch64-multiplatform) ];
        annotations."org.opencontainers.image.title" = "hello";
      };
    };
}
