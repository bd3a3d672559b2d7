"""`python -m stages.common.params`: check params.yaml; or print its JSON schema (`--schema`) or its manual."""

import json
import sys
from pathlib import Path

from stages.common.errors import AttuneError
from stages.common.params.loading import PARAMS_FILE, load_params
from stages.common.params.manual import manual
from stages.common.params.model import Params


def main(arguments: list[str]) -> int:
    """Check the file named (default params.yaml), or print schema or manual."""
    try:
        if arguments == ["--schema"]:
            print(json.dumps(Params.model_json_schema(by_alias=True), indent=1, ensure_ascii=False))
        elif arguments == ["--manual"]:
            print(manual(), end="")
        else:
            load_params(Path(arguments[0]) if arguments else PARAMS_FILE, complete=True)
    except AttuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
