{ lib, coreutils, openssl, runCommand }:

/* A closure of any number of store paths and any size, for benchmarks.

   The shape is that of real closures: sizes fall as 1/rank, so that a few paths hold most of
   the bytes; each path refers to up to five earlier ones, which makes chains of about ten;
   three quarters of a path's bytes are in one large file, the others in small ones. Bytes
   are those of a cipher's key stream: the same everywhere, different in every path, and
   not compressible.

   Type: generateClosure :: { paths :: Int, size :: Int, ... } -> Derivation

   paths: how many store paths the closure has
   size:  bytes of all of them, about
   seed:  another number gives other bytes and references
*/
{ name ? "generated", paths, size, seed ? 0 }:
let
  # A sequence of numbers that looks random: decimal digits of a hash.
  random = key: bound:
    let digits = builtins.fromJSON "1${lib.concatMapStrings (c: toString (lib.mod (value c) 10)) (lib.stringToCharacters (lib.substring 0 9 (hash key)))}"; in
    lib.mod digits bound;
  hash = key: builtins.hashString "sha256" "${toString seed}/${key}";
  value = c: { a = 0; b = 1; c = 2; d = 3; e = 4; f = 5; }.${c} or (builtins.fromJSON c);

  harmonic = lib.foldl' (sum: rank: sum + 1000000 / rank) 0 (lib.range 1 paths);
  sizeOf = rank: size / 1000000 * (1000000000 / rank / (harmonic / 1000)) + 4096;

  path = number:
    let
      bytes = sizeOf (number + 1);
      # Among the first half of those before it: as many steps down as the number has bits.
      references = lib.unique (map (edge: random "${toString number}/${toString edge}" (number / 2 + 1)) (lib.range 1 (lib.min 5 number)));
    in
    runCommand "${name}-${toString number}"
      {
        references = map (lib.elemAt all) references;
        nativeBuildInputs = [ coreutils openssl ];
      } ''
      mkdir -p $out/small
      echo $references > $out/references
      bytes() {
        head -c "$1" /dev/zero | openssl enc -aes-128-ctr -iv 0 -K ${lib.substring 0 31 (hash (toString number))}$2 2>/dev/null
      }
      bytes ${toString (bytes - bytes / 4)} 0 > $out/large
      bytes ${toString (bytes / 4)} 1 | split --bytes=6000 --suffix-length=6 - $out/small/file
    '';
  all = lib.genList path paths;
in
runCommand name { inherit all; passthru = { paths = all; }; } ''
  mkdir $out
  echo $all > $out/paths
''
