"""Files of predictions: pictures, videos, tables and point clouds, each written whole or not at all."""
