# Fetches an archive for `stowage serve --packages`. The code in the archive is evaluated later, in a process that can't
# fetch anything.
{ url }: toString (fetchTarball url)
