{ lib, runCommandLocal, runtimeShell, skopeo, stowage }:

/* skopeo that copies images of this library by `nix:PATH`, as nix2container's patched one does. It
   is skopeo as it is, and a script before it (skopeo.sh).

   Example:
   skopeo --insecure-policy copy nix:${image} docker://registry.example/team/hello:v1
*/
runCommandLocal "skopeo-nix2container-${skopeo.version}"
{
  meta = {
    description = "skopeo, with `nix:PATH` for images of stowage";
    mainProgram = "skopeo";
    license = with lib.licenses; [ asl20 mit ];
  };
  passthru = { inherit skopeo; inherit (skopeo) version; };
} ''
  mkdir -p $out/bin
  {
    echo '#!${runtimeShell}'
    echo skopeo=${skopeo}/bin/skopeo
    echo stowage=${stowage}/bin/stowage
    echo no_credentials=${builtins.toFile "auth.json" "{}"}
    cat ${./skopeo.sh}
  } > $out/bin/skopeo
  chmod +x $out/bin/skopeo
  # Manual pages, and what completes its commands in shells.
  if [ -d ${skopeo}/share ]; then ln -s ${skopeo}/share $out/share; fi
''
