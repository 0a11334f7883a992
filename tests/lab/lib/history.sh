# The application's git history: a bare repository with four releases, one annotated tag each. The same settings give the
# same commits, byte for byte.
# shellcheck shell=bash

# history BARE-REPOSITORY: makes it anew.
history_make() {
  local bare=$1 work
  scratch
  work=$SCRATCH
  rm -rf "$bare"
  (
    # Nothing of the operator's own git configuration may leak in.
    unset "${!GIT_@}"
    export HOME=$work GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
    export GIT_AUTHOR_NAME=vrc-shift GIT_AUTHOR_EMAIL=dev@example.invalid GIT_COMMITTER_NAME=vrc-shift GIT_COMMITTER_EMAIL=dev@example.invalid
    git init -q --template= "$work"
    cd -- "$work"
    git symbolic-ref HEAD refs/heads/main

    # The first release has no batch program, and one migration less than the second.
    paint docker-compose.prod.yml docker-compose.yml README.md backend/Dockerfile
    paint gitignore && mv gitignore .gitignore
    sed -i '/batch/d' backend/Dockerfile
    migrations 0 1 2
    release "$LAB_TAG_OLD" 2026-01-17 "$LAB_COLUMN" id 'First release with members.'

    paint backend/Dockerfile
    migrations 3
    release "$LAB_TAG_GOOD" 2026-01-20 "$LAB_COLUMN" id 'Roles for members; the nightly batch is in the image.'

    migrations 4
    release "$LAB_TAG_ADDITIVE" 2026-01-23 "$LAB_COLUMN" id 'Notes on shifts.'

    # The bad one: the column has a new name, and the list is sorted by a column that nobody ever added.
    migrations 5
    release "$LAB_TAG_BAD" 2026-01-27 "$LAB_COLUMN_NEW" position 'Shifts have a new column name and an order of their own.'

    git clone -q --bare --template= . "$bare"
    git -C "$bare" remote remove origin
    git -C "$bare" config core.sharedRepository group
  ) || die 'the git history of the application could not be made'
  rm -rf "$work"
}

# paint FILE…: copies files of project/ with the settings filled in.
paint() {
  local file
  for file; do
    mkdir -p -- "$(dirname -- "$file")"
    sed -e "s/@COLUMN@/$LAB_COLUMN/g" -e "s/@COLUMN_NEW@/$LAB_COLUMN_NEW/g" -e "s/@DB_INTERVAL@/$LAB_DB_INTERVAL/g" \
      -e "s/@BACKEND_INTERVAL@/$LAB_BACKEND_INTERVAL/g" "$LAB_HERE/project/$file" >"$file"
  done
}

# migrations OFFSET…: adds them, numbered from LAB_FIRST_MIGRATION on.
migrations() {
  local offset file name
  for offset; do
    for file in "$LAB_HERE/project/backend/migrations/${offset}"_*.sql; do
      name=$(basename "$file")
      paint "backend/migrations/$name"
      mv "backend/migrations/$name" "backend/migrations/$(printf '%03d' $((LAB_FIRST_MIGRATION + offset)))${name#"$offset"}"
    done
  done
}

# release TAG DAY COLUMN ORDER-BY WHAT-CHANGED
release() {
  local tag=$1 day=$2 column=$3 order=$4 change=$5
  echo "$tag" >backend/VERSION
  printf 'column = %s\norder_by = %s\nboot_ms = %s\n' "$column" "$order" "$LAB_BOOT_MS" >backend/app.conf
  { printf '## %s (%s)\n\n%s\n\n' "$tag" "$day" "$change"; cat CHANGELOG.md 2>/dev/null || true; } >CHANGELOG.new
  mv CHANGELOG.new CHANGELOG.md
  export GIT_AUTHOR_DATE="${day}T09:00:00Z" GIT_COMMITTER_DATE="${day}T09:00:00Z"
  git add -A
  git commit -q -m "Release $tag" -m "$change"
  git tag -a -m "$tag" "$tag"
}
