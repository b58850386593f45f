#!/usr/bin/env bash
# torch 2.11, torch.onnx.export(dynamo=True, output_names=[...]): the asked name is given to the output without a look
# at the values inside, which bear the names of their operators. A model of words has a value "embedding" of its
# nn.Embedding; asked for an output "embedding", the exporter says that all went well and writes a graph in which two
# nodes give the same name. onnxruntime 1.32 refuses the file when it is loaded. Any other name works.
# Seen: outputs of the nodes "embedding embedding", refused; with output_names=["embeddings"], a session that runs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 numpy==2.3.5 onnx==1.23.2 \
  onnxscript==0.7.2 onnxruntime==1.32.0
cat >"$folder/ask.py" <<'PYTHON'
import onnxruntime
import torch


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(10, 4)

    def forward(self, ids):
        return self.words(ids).mean(1)


ids = torch.tensor([[1, 2, 3]])
for name in ("embedding", "embeddings"):
    model = torch.onnx.export(Words(), (ids,), dynamo=True, output_names=[name], verbose=False).model_proto
    given = [output for node in model.graph.node for output in node.output]
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString())
        said = session.run(None, {session.get_inputs()[0].name: ids.numpy()})[0].shape
    except Exception as error:
        said = f"refused, duplicate name: {'Duplicate definition of name' in str(error)}"
    print(name, given, said)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | grep "^embedding" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
embedding ['embedding', 'embedding'] refused, duplicate name: True
embeddings ['embedding', 'embeddings'] (1, 4)
SEEN
