#!/usr/bin/env bash
# Add build/site to the branch gh-pages, which GitHub serves: as `latest` for a
# branch, under its name for a tag. For .github/workflows/docs.yml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=latest
if [ "$GITHUB_REF_TYPE" = tag ]; then folder=$GITHUB_REF_NAME; fi

git worktree add --quiet --detach --no-checkout build/pages
cd build/pages
if git fetch --quiet --depth 1 origin gh-pages; then
  git reset --quiet --hard FETCH_HEAD
else
  git switch --quiet --orphan gh-pages
fi
rm -rf "$folder"
cp -r ../site "$folder"
touch .nojekyll
echo '<meta http-equiv="refresh" content="0; url=latest/">' >index.html
git add --all
git -c user.name=docs -c user.email=docs@localhost commit --quiet --allow-empty -m "$folder, of $GITHUB_SHA"
git push --quiet origin HEAD:gh-pages
