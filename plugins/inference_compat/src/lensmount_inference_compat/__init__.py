"""The import path `inference_models` over lensmount; `table` lists its names."""
