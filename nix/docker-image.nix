# The flake's `dockerImage`: a small working environment, to try stowage with.
{ bash, buildEnv, coreutils, git, stowage, writeShellScriptBin }:
let
  greet = writeShellScriptBin "greet" ''
    echo "hello from an image of $(ls /nix/store | wc -l) store paths"
  '';
in
stowage.buildImage {
  name = "stowage-demo";
  copyToRoot = buildEnv {
    name = "root";
    paths = [ bash coreutils git greet ];
    pathsToLink = [ "/bin" ];
  };
  config = {
    Cmd = [ "/bin/bash" "-c" "git --version && greet" ];
    Env = [ "PATH=/bin" ];
  };
}
