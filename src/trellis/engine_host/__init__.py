"""A Python engine behind `tensorrt_llm`: queue, scheduler, answers, and the engines themselves."""
