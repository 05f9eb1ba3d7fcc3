{ sbom, streamer, script }:

# What every function that makes one image leaves: a script that streams it, with programs that
# explain it and copy it to where it is run.
{ function
, prefix
, name
, tag
, spec
, meta
  # The derivations and texts in which `sbom` finds packages.
, roots
, texts
, passthru ? { }
}:
script {
  inherit function prefix name tag spec meta;
  # Not by the whole program: each of its releases would give every image another script, and with it
  # another tag, where none is given.
  inherit streamer;
  stream = reference: "stream ${spec} --default-repo-tag ${reference}";
  passthru = { reference, program, withSkopeo }: {
    explain = program "explain" "explain ${spec}";
    copyToDockerDaemon = program "copy-to-docker-daemon" "copy ${spec} docker-daemon:${reference}";
    sbom = sbom { inherit spec roots texts; name = reference; };
    copyToPodman = withSkopeo "copy-to-podman" "copy ${spec} containers-storage:${reference}";
  } // passthru;
}
