"""`make export-postman`: write docs/wallet.postman_collection.json and its environment.

They are made of the API's OpenAPI document (names, descriptions, parameters, shapes, examples) and of the story in
`scripts/postman/story` (order, bodies, tests, what is kept). An operation that the story forgets is an error.
"""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from scripts.export_openapi import document
from scripts.postman.collection import StoryError, build_collection, build_environment
from scripts.postman.story import DESCRIPTION, ENVIRONMENT, ENVIRONMENT_NAME, STORY

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
COLLECTION: Final = DOCS / "wallet.postman_collection.json"
POSTMAN_ENVIRONMENT: Final = DOCS / "wallet.postman_environment.json"


def rendered() -> dict[Path, str]:
    """The files' text; raises StoryError where story and API do not fit together."""
    made = {
        COLLECTION: build_collection(document(), STORY, DESCRIPTION),
        POSTMAN_ENVIRONMENT: build_environment(ENVIRONMENT_NAME, ENVIRONMENT, STORY),
    }
    return {path: json.dumps(content, indent="\t", ensure_ascii=False) + "\n" for path, content in made.items()}


def main(
    *, check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where the files differ.")] = False
) -> None:
    """Write the Postman collection and its environment."""
    try:
        files = rendered()
    except StoryError as error:
        typer.secho(f"{error}. The story is in scripts/postman/story.", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error
    if not check:
        DOCS.mkdir(exist_ok=True)
        for path, text in files.items():
            path.write_text(text)
        return
    stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
    if stale:
        message = f"docs/ is not up to date ({', '.join(stale)}): run make export-postman"
        typer.secho(message, fg=typer.colors.RED, err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
