{ lib, runCommand, stowage, writeText, overridable }:

/* Tests an image's files and configuration when it is built, and runs nothing of it.

   The tests are container-structure-test's, version 2: `fileExistenceTests`, `fileContentTests`, `metadataTest` and
   `licenseTests`. The result is a derivation, for a flake's `checks`, that has the results as text, and fails with them if
   one of the tests does.

   Type: structureTest :: AttrSet -> Derivation

   Example:
   structureTest {
       image = self.packages.x86_64-linux.app;
       tests = {
           fileExistenceTests = [ { name = "app"; path = "/bin/app"; isExecutableBy = "any"; } ];
           metadataTest = { user = "1000"; exposedPorts = [ "8080" ]; };
       };
   }
*/
lib.fix (self:
{
  # What `buildImage` and the like made, or an archive of `dockerTools`, `docker save` or skopeo.
  image
  # The tests: a set, whose `schemaVersion` may be left out, a file of YAML or JSON, or a list of such.
, tests
  # Whether `commandTests`, which would run programs, are left out. They are refused otherwise.
, skipCommands ? false
  # The architecture of the image, if there are several, by Go's name: "amd64". Null for that of the machine that builds.
, architecture ? null
}@arguments: overridable self arguments (
  let
    isFile = value: builtins.isPath value || builtins.isString value || lib.isDerivation value;
    documentOf = value:
      if isFile value then "${value}"
      else if builtins.isAttrs value then writeText "tests.json" (builtins.toJSON ({ schemaVersion = "2.0.0"; } // value))
      else throw "stowage.structureTest: `tests` must be a set, a file or a list of such, not ${builtins.typeOf value}";
    documents = map documentOf (lib.flatten [ tests ]);
    name = baseNameOf (image.imageName or image.name or "image");
    options = lib.optional skipCommands "--skip-commands"
      ++ lib.optionals (architecture != null) [ "--arch" architecture ];
  in
  runCommand "structure-test-${name}" { } ''
    ${stowage}/bin/stowage test ${lib.escapeShellArgs (options ++ [ "${image.spec or image}" ] ++ documents)} > $out || { cat $out >&2; exit 1; }
  ''
))
