import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # toy_evaluation.py is imported by tests and by the processes they start
