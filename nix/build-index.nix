{ lib, pkgs, runCommandLocal, runtimeShell, stowage, writeText }:

/* Makes one index of images for several platforms, of which engines choose their own.

   The result is a script that streams it as an OCI archive.

   Type: buildIndex :: AttrSet -> Derivation

   Attributes of the result, besides those of a derivation:
   - imageName, imageTag, imageRefUnsafe: as for buildImage
   - copyTo, copyToRegistry: programs that copy it, all its images with it
   - spec: the index spec

   Example:
   buildIndex {
       name = "registry.example/team/hello";
       tag = "v1";
       images = [ helloForAmd64 { image = helloForArm64; annotations.tested = "no"; } ];
       annotations."org.opencontainers.image.source" = "https://example.org/hello";
   }
*/
lib.makeOverridable (
  {
    # Name of the index, perhaps with a registry and a namespace. Put in lower case, as registries want it.
    name
    # Tag of the index; null for the hash of the output's store path.
  , tag ? null
    # What `buildImage` made, for a platform each; or sets of `image` and `annotations`.
  , images
    # What the index says of itself.
  , annotations ? { }
  , meta ? { }
  }:
  let
    imageName = lib.toLower name;
    baseName = baseNameOf imageName;
    complain = problem: throw "stowage.buildIndex: ${problem}";

    entries = map
      (entry: if entry ? image then entry else { image = entry; })
      (if lib.isList images && images != [ ] then images else complain "`images` must be a list of one image at least");
    specOf = { image, annotations ? { } }: { spec = "${image.spec or (complain "each of `images` must be an image of `buildImage`")}"; inherit annotations; };
    spec = writeText "${baseName}-index.json" (builtins.toJSON {
      version = 1;
      inherit annotations;
      images = map specOf entries;
    });

    imageTag =
      if tag != null then tag
      else builtins.substring 0 32 (baseNameOf (builtins.unsafeDiscardStringContext index.outPath));

    copyProgram = name: arguments: pkgs.buildPackages.writeShellScriptBin name ''
      # For targets that need skopeo, should there be none that suits this machine better.
      PATH=''${PATH:+$PATH:}${pkgs.buildPackages.skopeo}/bin
      exec ${stowage}/bin/stowage copy ${spec}${arguments} "$@"
    '';

    index = runCommandLocal "index-${baseName}"
      {
        inherit meta;
        passthru = {
          inherit imageName imageTag spec;
          imageRefUnsafe = builtins.unsafeDiscardStringContext "${imageName}:${imageTag}";
          isExe = true;
          copyTo = copyProgram "copy-to" "";
          copyToRegistry = copyProgram "copy-to-registry" " docker://${imageName}:${imageTag}";
        };
      } ''
      output=''${out##*/}
      tag=${if tag != null then lib.escapeShellArg tag else "\${output%%-*}"}
      cat > $out <<EOF
      #!${runtimeShell}
      exec ${stowage}/bin/stowage copy --quiet ${spec} oci-archive:/dev/stdout:$tag
      EOF
      chmod +x $out
    '';
  in
  index
)
