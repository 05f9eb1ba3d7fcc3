# Fetches an archive for `stowage serve --packages`, by code of its own: the packages' is evaluated later, where
# nothing can be fetched.
{ url }: toString (fetchTarball url)
