"""The engines behind `tensorrt_llm`: one file each, one small interface (`engine.py`)."""
