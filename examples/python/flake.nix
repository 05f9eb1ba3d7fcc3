{
  description = "A Python application";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.stowage.url = "git+file:///where/you/cloned/stowage";
  inputs.stowage.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, stowage, ... }: {
    packages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system:
      let
        # nixpkgs, with stowage's functions as pkgs.stowage.
        pkgs = stowage.legacyPackages.${system};

        # With packages: pkgs.python3.withPackages (python: [ python.requests ])
        python = pkgs.python3;
        application = pkgs.writeTextDir "app/main.py" ''
          import json, platform, sys
          print(json.dumps({"arguments": sys.argv[1:], "python": platform.python_version()}))
        '';
      in
      {
        # nix run .#default.copyToDockerDaemon && docker run --rm python-app:v1 a b
        default = pkgs.stowage.buildImage {
          name = "python-app";
          tag = "v1";
          copyToRoot = application;
          # The interpreter changes seldom: it has layers of its own below the application's.
          layers = [ (pkgs.stowage.buildLayer { deps = [ python ]; maxLayers = 10; }) ];
          config = {
            Entrypoint = [ "${python}/bin/python3" "/app/main.py" ];
            Env = [ "PYTHONUNBUFFERED=1" "PYTHONDONTWRITEBYTECODE=1" ];
          };
        };
      });
  };
}
