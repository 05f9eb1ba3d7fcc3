{
  description = "Several services with layers in common";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.stowage.url = "git+file:///where/you/cloned/stowage";
  inputs.stowage.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, stowage, ... }: {
    packages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system:
      let
        # nixpkgs, with stowage's functions as pkgs.stowage.
        pkgs = stowage.legacyPackages.${system};

        # The layers at the bottom of every service: a registry and a daemon store them once.
        common = pkgs.stowage.buildLayer { deps = [ pkgs.bash pkgs.coreutils pkgs.cacert ]; maxLayers = 5; };

        service = name: text: pkgs.stowage.buildImage {
          inherit name;
          tag = "v1";
          layers = [ common ];
          config = {
            Cmd = [ (pkgs.writeShellScript name "PATH=${pkgs.coreutils}/bin\n${text}") ];
            Env = [ "SSL_CERT_FILE=${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt" ];
          };
        };
      in
      rec {
        front = service "front" "echo front: $(uname -s)";
        back = service "back" "echo back: $(uname -m)";

        # nix run .#default: all of them to Docker.
        default = pkgs.writeShellScriptBin "copy-all" ''
          ${nixpkgs.lib.getExe front.copyToDockerDaemon} && ${nixpkgs.lib.getExe back.copyToDockerDaemon}
        '';
      });
  };
}
